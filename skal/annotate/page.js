"use strict";
// The page keeps nothing of its own: what it shows came from the server, and an answer
// counts when the server has confirmed it.
const token = new URLSearchParams(location.search).get("token");
const $ = (id) => document.getElementById(id);
const RESERVED = new Set("supz?");
let item = null;      // what is shown
let since = 0;        // when it was shown
let earlier = null;   // answers given before, latest first, while one looks at them
let place = -1;       // which of them is shown; -1: the next item
let busy = false;     // a request is under way
let keys = new Map(); // key -> class
let waiting = null;   // timer

const who = () => $("annotator").value.trim();
const stored = (name, value) => {
  try {
    if (value === undefined) return localStorage.getItem(name) || "";
    localStorage.setItem(name, value);
  } catch { /* a browser that stores nothing */ }
  return "";
};

async function get(path) {
  const query = new URLSearchParams({ token, annotator: who() });
  return read(await fetch(`${path}?${query}`));
}

async function post(path, message) {
  return read(await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Skal-Token": token },
    body: JSON.stringify({ annotator: who(), ...message }),
  }));
}

async function read(response) {
  if (response.ok) return response.json();
  const text = await response.text();
  let reason = text;
  try { reason = JSON.parse(text).error; } catch { /* plain text */ }
  const error = new Error(reason || `the server answered ${response.status}`);
  error.refused = response.status < 500;
  throw error;
}

// Asks until the server answers, so that nothing said is lost while it is away.
async function surely(ask) {
  for (;;) {
    try {
      const found = await ask();
      problem("");
      return found;
    } catch (error) {
      if (error.refused) throw error;
      problem("The server does not answer. Your last answer is kept on this page and "
        + "sent again; start skal label serve anew.");
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

async function once(work) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    problem(error.message);
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function problem(text) {
  if ($("problem").textContent !== text) $("problem").textContent = text;
  $("problem").hidden = !text;
}
function say(text) { $("said").textContent = text; }

// -- what is shown ---------------------------------------------------------------------

function show(found, said = "") {
  clearTimeout(waiting);
  item = found.item;
  $("item").dataset.zoom = "1";
  $("zoom").hidden = !item || item.kind !== "images";
  $("forward").disabled = place < 0;
  mark();
  if (!item) {
    $("item").replaceChildren();
    const done = found.done
      ? "Nothing is left for you to label" : "Choosing what to ask next; please wait";
    if ($("title").textContent !== done) { $("title").textContent = done; say(said + done); }
    waiting = setTimeout(() => once(next), found.done ? 5000 : 700);
    showGuess();
    return;
  }
  const place_ = item.answered ? ` — answered: ${item.label ?? "skipped"}` : "";
  $("title").textContent = title(item) + place_;
  $("item").replaceChildren(content(item));
  $("item").scrollTo(0, 0);
  since = performance.now();
  showGuess();
  say(`${said}${title(item)}${place_}`);
}

const title = (of) => (of.kind === "images" ? of.name : `Item ${of.name}`);

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function content(of) {
  if (of.kind === "texts") return element("p", of.text, "text");
  if (of.kind === "table") {
    const table = element("table");
    for (const [column, value] of of.row) {
      const row = table.insertRow();
      const head = element("th", column);
      head.scope = "row";
      row.append(head, element("td", value === null ? "" : String(value)));
    }
    return table;
  }
  const image = element("img");
  image.alt = `Image ${of.name}`;
  image.onload = () => image.classList.toggle("small", image.naturalWidth < 200);
  image.onerror = () => image.replaceWith(
    element("p", "This image cannot be shown; skip it.", "text"));
  image.src = `items/${of.number}/image?${new URLSearchParams({ token })}`;
  return image;
}

function mark() {
  for (const button of $("classes").children) {
    const said = Boolean(item) && item.answered && item.label === button.dataset.label;
    button.setAttribute("aria-pressed", String(said));
  }
}

function showGuess() {
  const on = $("predict").getAttribute("aria-pressed") === "true";
  $("guess").hidden = !on;
  if (!on) return;
  const guess = item && item.guess;
  $("guess").textContent = guess
    ? `The model says ${guess[0]}, ${percent(guess[1])} sure.` : "No prediction yet.";
}

const percent = (share) => `${Math.round(100 * share)}\u202f%`;

function span(seconds) {
  const minutes = Math.ceil(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

async function refresh() {
  const state = await get("state");
  const { n_labeled: labeled, n_skipped: skipped, goal } = state;
  $("progress").max = Math.max(1, goal);
  $("progress").value = labeled + skipped;
  let text = `${labeled} of ${goal} labelled`;
  if (skipped) text += `, ${skipped} skipped`;
  if (state.seconds_left !== null) text += `, about ${span(state.seconds_left)} left`;
  $("counts").textContent = text;
  showClasses(state.classes);
  const found = state.estimate;
  $("estimate").textContent = found
    ? `Accuracy about ${percent(found.accuracy)} (95 %: ${percent(found.low)} to `
      + `${percent(found.high)}), cross-validated on ${found.n_labels} labels. Rather too `
      + "low for all items: the hard ones were asked first."
    : "No estimate of the accuracy yet.";
  $("advice").textContent = state.advice || "";
  if (state.error) {
    problem(`The model cannot be trained (${state.error}). What you said is safe.`);
  }
}

function showClasses(classes) {
  const box = $("classes");
  const names = classes.map(([name]) => name);
  if (names.join("\n") !== [...box.children].map((b) => b.dataset.label).join("\n")) {
    keys = assign(names);
    const shortcuts = new Map(names.map((name) => [name, []]));
    for (const [key, name] of keys) shortcuts.get(name).push(key);
    box.replaceChildren(...names.map((name) => {
      const button = element("button");
      button.dataset.label = name;
      button.append(...shortcuts.get(name).map((key) => element("kbd", key)));
      button.append(element("span", name, "name"), element("span", "", "n"));
      button.setAttribute("aria-keyshortcuts", shortcuts.get(name).join(" "));
      button.onclick = () => once(() => answer(name));
      return button;
    }));
    mark();
  }
  classes.forEach(([name, n], index) => {
    const button = box.children[index];
    button.querySelector(".n").textContent = n;
    const short = button.getAttribute("aria-keyshortcuts");
    button.setAttribute("aria-label", `${name}, ${n} labelled${short && `, key ${short}`}`);
  });
}

// Digits for the first nine classes, and for each a letter, of its name if one is free.
function assign(names) {
  const found = new Map();
  names.slice(0, 9).forEach((name, index) => found.set(String(index + 1), name));
  for (const name of names) {
    const letters = [...name.toLowerCase(), ..."abcdefghijklmnopqrstuvwxyz"];
    const free = letters.find((c) => /^[a-z]$/.test(c) && !RESERVED.has(c) && !found.has(c));
    if (free) found.set(free, name);
  }
  return found;
}

// -- what one does ---------------------------------------------------------------------

async function next() {
  place = -1;
  earlier = null;
  show(await surely(() => post("next", {})));
  refresh().catch(() => {});
}

async function answer(label) {
  if (!item) return;
  const seconds = Math.min(3600, (performance.now() - since) / 1000);
  const message = { item: item.number, label, seconds: Number(seconds.toFixed(2)) };
  const found = await surely(() => post("answer", message));
  place = -1;
  earlier = null;
  show(found, `${label ?? "Skipped"}. `);
  refresh().catch(() => {});
  if ($("earlier").open) showHistory().catch(() => {});
}

async function undo() {
  const found = await surely(() => post("undo", {}));
  if (!found.item) { say("There is no answer to take back."); return; }
  place = -1;
  earlier = null;
  show(found, "Taken back. ");
  refresh().catch(() => {});
  if ($("earlier").open) showHistory().catch(() => {});
}

async function step(by) {
  if (earlier === null) earlier = await get("history");
  const to = Math.min(place + by, earlier.length - 1);
  if (to < 0) { await next(); return; }
  if (to === place) { say("This is the first answer."); return; }
  await open_(to);
}

async function open_(to) {
  const found = await get(`items/${earlier[to].number}`);
  place = to;
  show({ item: found });
}

async function showHistory() {
  const answers = await get("history");
  $("history").replaceChildren(...answers.map(({ number, name, label }, index) => {
    const line = element("li");
    const text = /^\d+$/.test(name) ? `Item ${name}` : name;
    const button = element("button", `${text}: ${label ?? "skipped"}`);
    button.onclick = () => once(async () => {
      earlier = answers;
      await open_(index);
      $("title").focus();
    });
    button.dataset.number = number;
    line.append(button);
    return line;
  }));
}

function zoom() {
  const to = { 1: "2", 2: "4", 4: "1" }[$("item").dataset.zoom];
  $("item").dataset.zoom = to;
  say(`Zoom ${to}`);
}

function predict() {
  const on = $("predict").getAttribute("aria-pressed") !== "true";
  $("predict").setAttribute("aria-pressed", String(on));
  showGuess();
  if (on) say($("guess").textContent);
}

const actions = {
  s: () => once(() => answer(null)),
  u: () => once(undo),
  p: predict,
  z: () => { if (!$("zoom").hidden) zoom(); },
  ArrowLeft: () => once(() => step(1)),
  ArrowRight: () => once(() => step(-1)),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (!$("keys").checked || event.target.closest("input:not([type=checkbox])")) return;
  // Arrows move about in a zoomed image.
  if (event.target === $("item") && $("item").dataset.zoom !== "1"
    && event.key.startsWith("Arrow")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const does = actions[key]
    || (keys.has(key) && (() => once(() => answer(keys.get(key)))));
  if (!does) return;
  event.preventDefault();
  does();
});

$("skip").onclick = actions.s;
$("undo").onclick = actions.u;
$("predict").onclick = predict;
$("zoom").onclick = zoom;
$("back").onclick = actions.ArrowLeft;
$("forward").onclick = actions.ArrowRight;
$("earlier").ontoggle = () => { if ($("earlier").open) showHistory().catch(() => {}); };
$("annotator").onchange = () => { stored("skal-annotator", who()); once(next); };
$("keys").onchange = () => stored("skal-keys", $("keys").checked ? "" : "off");
$("new-class").onsubmit = (event) => {
  event.preventDefault();
  once(async () => {
    const state = await post("classes", { name: $("class-name").value });
    showClasses(state.classes);
    say(`Added ${$("class-name").value}`);
    $("class-name").value = "";
  });
};

$("annotator").value = stored("skal-annotator");
$("keys").checked = stored("skal-keys") !== "off";
setInterval(() => refresh().catch(() => {}), 10000);
once(async () => {
  await surely(refresh); // whoever sees an item has the keys to answer it
  await next();
});
