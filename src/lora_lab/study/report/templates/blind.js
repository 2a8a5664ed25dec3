"use strict";
// Two pictures without names; what is chosen is kept in the browser and saved as a file.
const data = JSON.parse(document.getElementById("data").textContent);
const part = (id) => document.getElementById(id);
const pair = part("pair");
const [left, right] = pair.querySelectorAll("img");
const buttons = document.querySelectorAll("[data-choice]");
const store = `lora-lab-blind-${data.study}`;
const source = (key) => `data:image/webp;base64,${data.pictures[key]}`;
let answers = [];
try {
  const kept = JSON.parse(localStorage.getItem(store) || "[]");
  if (Array.isArray(kept) && kept.length <= data.pairs.length) answers = kept;
} catch { /* A browser that keeps nothing for files: the answers live as long as the page. */ }

function keep() {
  try {
    localStorage.setItem(store, JSON.stringify(answers));
  } catch { /* as above */ }
}

function show() {
  const done = answers.length;
  const over = done >= data.pairs.length;
  pair.hidden = over;
  part("prompt").textContent = over ? "All pairs are answered: save the answers." : data.pairs[done][2];
  for (const button of buttons) button.disabled = over;
  part("back").disabled = done === 0;
  part("save").disabled = done === 0;
  part("progress").value = done;
  part("status").textContent = over ? `All ${done} pairs answered.` : `Pair ${done + 1} of ${data.pairs.length}.`;
  if (over) return;
  left.src = source(data.pairs[done][0]);
  right.src = source(data.pairs[done][1]);
}

function choose(choice) {
  if (answers.length >= data.pairs.length) return;
  answers.push(choice);
  keep();
  show();
}

function back() {
  answers.pop();
  keep();
  show();
}

function save() {
  if (!answers.length) return;
  const rows = answers.map((choice, index) =>
    ({ left: data.pairs[index][0], right: data.pairs[index][1], choice }));
  const text = JSON.stringify({ format: data.format, study: data.study, answers: rows }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "blind-answers.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  part("status").textContent = `${answers.length} answers saved as ${link.download}.`;
}

const KEYS = {
  ArrowLeft: () => choose("left"), ArrowRight: () => choose("right"), ArrowDown: () => choose("tie"),
  1: () => choose("left"), 2: () => choose("right"), 0: () => choose("tie"),
  ArrowUp: back, Backspace: back, s: save, S: save,
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});
for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.choice));
part("back").addEventListener("click", back);
part("save").addEventListener("click", save);
show();
