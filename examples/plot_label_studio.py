"""
Label with Label Studio, and come back
======================================

Teams that have a labelling tool keep it: skal chooses the batch and writes it as tasks,
people answer there, and its export is read back. Argilla and Prodigy work alike.
"""

# %%
# Texts to label, one a line.
import json
import tempfile
from pathlib import Path

from skal.annotate import LabelProject
from skal.annotate.writing import write_batch

scratch = tempfile.TemporaryDirectory()
file = Path(scratch.name, "reviews.txt")
subjects = "film plot cast score ending pace dialogue camera costume joke".split()
words = {
    "good": ["lovely", "warm", "brilliant", "fresh"],
    "bad": ["dull", "cold", "clumsy", "stale"],
}
lines = [
    f"a {word} {subject}, {['from start to end', 'I thought', 'all in all'][place % 3]}"
    for place, subject in enumerate(subjects)
    for pair in zip(*words.values(), strict=True)
    for word in pair
]
file.write_text("\n".join(lines), encoding="utf-8")

# %%
# A project, and the first batch as tasks. Beside them lies the labelling interface,
# which you paste into the settings of a project of Label Studio; then import the tasks.
#
# .. code-block:: sh
#
#     skal label init reviews.txt --classes good bad --project reviews
#     skal label next reviews --format label-studio --out tasks.json
project = LabelProject.init(
    file, classes=["good", "bad"], project=file.with_name("reviews"), batch_size=10
)
tasks = file.with_name("tasks.json")
for path in write_batch(project, project.next(), tasks, "label-studio"):
    print(path.name)
print(file.with_name("tasks.xml").read_text())


# %%
# People label there; this stands for them, and for Export as JSON. Some cancel a task
# where they cannot decide, which counts as a skip.
def answer(text):
    return "good" if any(word in text for word in words["good"]) else "bad"


exported = []
for number, task in enumerate(json.loads(tasks.read_text())):
    choices = {"choices": [answer(task["data"]["text"])]}
    result = {"type": "choices", "from_name": "label", "value": choices}
    said = {"completed_by": {"email": "ann@example.org"}, "lead_time": 2.5}
    said |= {"was_cancelled": number == 3, "result": [] if number == 3 else [result]}
    exported.append({"id": number, "data": task["data"], "annotations": [said]})
answers = file.with_name("export.json")
answers.write_text(json.dumps(exported))

# %%
# Read the answers back: all of a file, or none where a line is wrong. What was read
# already is known, so nothing counts twice.
#
# .. code-block:: sh
#
#     skal label add export.json --project reviews
print(project.add(answers))
print(project.add(answers))

# %%
# Its JSON_MIN and CSV are read as well: a flat record for each task.
tasks = file.with_name("second.json")
write_batch(project, project.next(), tasks, "label-studio")
flat = [task["data"] for task in json.loads(tasks.read_text())]
flat = [{**data, "label": answer(data["text"]), "annotator": "bob"} for data in flat]
answers.write_text(json.dumps(flat))
print(project.add(answers))

# %%
# The model has learnt from both files; who said what is kept.
print(project.status()["counts"], project.status()["n_skipped"], "skipped")
print(project.store.answers()["annotator"].value_counts().to_dict())
print(project.model_.predict(["a brilliant little film", "a stale, clumsy plot"]))
scratch.cleanup()
