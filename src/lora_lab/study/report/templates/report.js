"use strict";
// Without this script everything is there to read; it adds full size, sorting and the place in the page.

const viewer = document.getElementById("viewer");
const stage = viewer.querySelector(".stage");
for (const link of document.querySelectorAll("a.zoom")) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const shown = link.querySelector("img");
    const full = stage.querySelector("img");
    full.src = shown.currentSrc || shown.src;
    full.alt = shown.alt;
    viewer.showModal();
    stage.scrollTo(0, 0);
  });
}
viewer.addEventListener("close", () => stage.querySelector("img").removeAttribute("src"));

for (const region of document.querySelectorAll(".scroll")) {
  const tell = () => {
    const more = region.scrollWidth - region.clientWidth - region.scrollLeft > 4;
    if (more) region.dataset.more = "";
    else delete region.dataset.more;
  };
  region.addEventListener("scroll", tell, { passive: true });
  new ResizeObserver(tell).observe(region);
}

const MANY_ROWS = 30;
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const limit = table.tBodies[0].rows.length > MANY_ROWS ? filtered(table) : () => {};
  sortable(table, limit);
  limit();
}

// Hundreds of values: the first of them, a search, and the verdicts one by one.
function filtered(table) {
  const body = table.tBodies[0];
  const bar = document.createElement("div");
  bar.className = "filters controls";
  const field = (text, control) => {
    const label = document.createElement("label");
    label.append(text, control);
    bar.append(label);
    return control;
  };
  const words = field("Find a value ", document.createElement("input"));
  words.type = "search";
  const verdict = document.createElement("select");
  const verdicts = new Set([...body.querySelectorAll(".verdict")].map((one) => one.textContent));
  if (verdicts.size) field("Verdict ", verdict);
  verdict.append(new Option("All", ""), ...[...verdicts].map((text) => new Option(text, text)));
  const all = document.createElement("button");
  all.type = "button";
  all.className = "quiet";
  const status = document.createElement("p");
  status.className = "note";
  status.setAttribute("role", "status");
  bar.append(all, status);
  table.closest(".scroll").before(bar);
  let whole = false;
  const apply = () => {
    const typed = words.value.trim().toLowerCase();
    const fit = [...body.rows].filter((row) =>
      row.cells[0].textContent.toLowerCase().includes(typed)
      && (!verdict.value || row.querySelector(".verdict").textContent === verdict.value));
    const shown = new Set(whole ? fit : fit.slice(0, MANY_ROWS));
    for (const row of body.rows) row.hidden = !shown.has(row);
    all.hidden = fit.length <= MANY_ROWS;
    all.textContent = whole ? `Show ${MANY_ROWS} only` : `Show all ${fit.length}`;
    status.textContent = `${shown.size} of ${body.rows.length} rows.`;
  };
  all.addEventListener("click", () => { whole = !whole; apply(); });
  words.addEventListener("input", apply);
  verdict.addEventListener("change", apply);
  addEventListener("beforeprint", () => { for (const row of body.rows) row.hidden = false; });
  addEventListener("afterprint", apply);
  return apply;
}

function sortable(table, limit) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.key ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b
      : typeof a === typeof b ? String(a).localeCompare(String(b))
      : typeof a === "number" ? -1 : 1;
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const falling = header.getAttribute("aria-sort") === "ascending";
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [keyOf(row, column), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return falling ? compare(b, a) : compare(a, b);
      });
      body.append(...rows.map(([, row]) => row));
      limit();
    });
  });
}

addEventListener("beforeprint", () => {
  for (const more of document.querySelectorAll("details")) more.open = true;
});

const links = new Map(
  [...document.querySelectorAll(".toc a")].map((link) => [link.hash.slice(1), link]));
const seen = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target.id);
  const first = [...links.keys()].find((id) => seen.has(id));
  for (const [id, link] of links) {
    if (id === first) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}, { rootMargin: "-20% 0px -60% 0px" });
for (const id of links.keys()) watcher.observe(document.getElementById(id));
