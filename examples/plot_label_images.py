"""
Label a folder of images
========================

From a folder of images to a trained classifier, with people who answer: the path of
``skal label``, here in Python. Each step names the command that does the same.
"""

# %%
# A folder of images, as a camera may have left it: digits, written as files. Others,
# which nobody labels, measure what is learnt.
import tempfile
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.datasets import load_digits

from skal.annotate import LabelProject

digits = load_digits()
scratch = tempfile.TemporaryDirectory()
folder, others = Path(scratch.name, "photos"), Path(scratch.name, "others")
truth = {}
for number, pixels in enumerate(digits.images[:800]):
    name = f"IMG_{number:04}.png"
    path = (folder if number % 4 else others) / name
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray((pixels * 15.9).astype(np.uint8))
    image.resize((32, 32)).save(path)
    truth[name] = str(digits.target[number])

# %%
# Make a project of it, which lives in ``photos/.skal``:
#
# .. code-block:: sh
#
#     skal label init photos/ --classes 0 1 2 3 4 5 6 7 8 9
classes = [str(digit) for digit in range(10)]
project = LabelProject.init(folder, classes=classes)
print(project.status()["n_items"], "images to label")

# %%
# The first batch is the herding set: nothing is labelled, so it covers the images.
#
# .. code-block:: sh
#
#     skal label next photos/ --out batch.csv --sheet batch.png
batch = project.next()
print(batch.head(3))

figure, axes = plt.subplots(2, 10, figsize=(8, 1.9))
for axis, path in zip(axes.flat, batch["path"], strict=True):
    axis.imshow(Image.open(path), cmap="gray")
    axis.axis("off")
figure.suptitle("The first batch")

# %%
# A person answers; in a notebook ``project.show()`` lets you do so, here we know it.
# None skips what nobody can decide. Each answer is on the disk when `answer` returns.
#
# .. code-block:: sh
#
#     skal label serve photos/      # on a page in the browser
#     skal label add batch.csv      # or with the column `label` filled in
labels = [*(truth[item] for item in batch["item"][:-1]), None]
project.answer(batch["item"], labels)

# %%
# From now on a model is trained and chooses the batches. Ask as long as it pays.
#
# .. code-block:: sh
#
#     skal label status photos/
paths = sorted(map(str, others.iterdir()))
wanted = [truth[Path(path).name] for path in paths]
for _ in range(6):
    batch = project.next()
    project.answer(batch["item"], [truth[item] for item in batch["item"]])
    right = np.mean(project.model_.predict(paths) == wanted)
    print(f"{project.status()['n_labeled']:3d} labels, accuracy {right:.3f}")

# %%
# Without the truth you estimate it, by cross-validation on what is labelled. That is
# too low, here by much: those are the images that were hard for the model.
estimate = project.estimate()
if estimate is not None:
    accuracy, low, high, n_labels = estimate
    print(f"about {accuracy:.2f} ({low:.2f} to {high:.2f}) by {n_labels} labels")

# %%
# Take what people said, or what the model says of all images, and which of them a
# person should look at; the model itself takes the paths of new images.
#
# .. code-block:: sh
#
#     skal label export labels.csv --project photos/
#     skal label export by-class/ --project photos/
#     skal label predict predictions.csv --project photos/
print(project.export(Path(scratch.name, "by-class")), "images in a folder by class")
predictions = project.predict()
print(predictions["look"].value_counts())
print(predictions.nsmallest(3, "confidence"))

model = project.model_
print(model.predict(paths[:5]), "are", wanted[:5])
scratch.cleanup()
