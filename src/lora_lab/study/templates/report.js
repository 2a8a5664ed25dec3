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

for (const table of document.querySelectorAll("table[data-sortable]")) {
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
    });
  });
}

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
