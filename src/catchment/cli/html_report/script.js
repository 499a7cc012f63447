"use strict";
const table = document.getElementById("rows");
const body = table.tBodies[0];
const filter = document.getElementById("filter");
const only = document.getElementById("only");
const all = document.getElementById("all");
const shown = document.getElementById("shown");
let folded = all !== null;

function show() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  // Whoever looks for something looks among all tables.
  table.classList.toggle("folded", folded && !words.length && !only.checked);
  table.classList.toggle("only", only.checked);
  let count = 0;
  for (const row of body.rows) {
    const name = row.cells[0].textContent.toLowerCase();
    row.classList.toggle("unlike", !words.every((word) => name.includes(word)));
    count += row.offsetParent !== null;
  }
  shown.textContent = count < body.rows.length ? `${count} of ${body.rows.length} shown` : "";
  if (all) all.hidden = !folded;
}

function sort(head, number) {
  const down = head.ariaSort ? head.ariaSort === "ascending" : head.className === "number";
  const value = (row) => row.cells[number].dataset.v ?? row.cells[number].textContent;
  const order = head.className === "number" ? (a, b) => value(a) - value(b) : (a, b) => value(a).localeCompare(value(b));
  const rows = [...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b)));
  rows.forEach((row, place) => row.classList.toggle("more", place >= 50));
  for (const other of head.parentNode.cells) other.ariaSort = null;
  head.ariaSort = down ? "descending" : "ascending";
  body.append(...rows);
  show();
}

for (const head of table.tHead.rows[0].cells) {
  head.addEventListener("click", () => sort(head, Number(head.dataset.sort)));
}
filter.addEventListener("input", show);
only.addEventListener("change", show);
if (all) all.addEventListener("click", () => { folded = false; show(); });
show();
