"use strict";
const classes = JSON.parse(document.getElementById("counts-at").textContent);
const slider = document.getElementById("threshold");
const dialog = document.getElementById("enlarged");

function share(part, whole) {
  return whole ? (100 * part / whole).toFixed(1) : "–";
}

function row(name, objects, hits, wrong) {
  const cells = [name, objects, hits, objects - hits, wrong, share(hits, hits + wrong), share(hits, objects)];
  const line = document.createElement("tr");
  for (const words of cells) line.insertCell().textContent = words;
  return line;
}

function show() {
  const threshold = Number(slider.value);
  const step = Math.round(threshold * slider.max / slider.step);
  document.getElementById("chosen").textContent = threshold.toFixed(2);
  const body = document.getElementById("counts");
  body.replaceChildren();
  const sums = [0, 0, 0];
  for (const one of classes) {
    const counts = [one.objects, one.hits[step], one.false[step]];
    counts.forEach((count, i) => { sums[i] += count; });
    body.append(row(one.name, ...counts));
  }
  if (classes.length > 1) body.append(row("all", ...sums));
  for (const box of document.querySelectorAll("rect[data-score]")) {
    const score = Number(box.dataset.score);
    const isTruth = box.classList.contains("truth");
    box.classList.toggle("missed", isTruth && (score === 0 || score < threshold));
    box.classList.toggle("hidden", !isTruth && score < threshold);
  }
}

function enlarge(tile) {
  const place = document.getElementById("large");
  place.replaceChildren(tile.querySelector(".picture").cloneNode(true));
  document.getElementById("large-name").textContent = tile.querySelector(".name").textContent;
  const list = document.getElementById("large-boxes");
  list.replaceChildren();
  for (const box of tile.querySelectorAll("rect:not(.hidden)")) {
    const item = document.createElement("li");
    const missed = box.classList.contains("missed");
    item.textContent = (missed ? "missed" : box.dataset.kind) + ": " + box.dataset.label;
    list.append(item);
  }
  dialog.showModal();
}

slider.addEventListener("input", show);
for (const tile of document.querySelectorAll(".tile")) tile.addEventListener("click", () => enlarge(tile));
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
document.getElementById("close").addEventListener("click", () => dialog.close());
show();
