for (const head of document.querySelectorAll("th button")) head.addEventListener("click", () => {
  const cell = head.parentElement, table = cell.closest("table"), body = table.tBodies[0];
  const column = [...cell.parentElement.children].indexOf(cell), up = cell.getAttribute("aria-sort") !== "ascending";
  for (const other of cell.parentElement.children) other.removeAttribute("aria-sort");
  cell.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => { const c = row.children[column]; return c.dataset.value !== undefined ? Number(c.dataset.value) : c.textContent; };
  const order = (a, b) => {
    const x = key(a), y = key(b), numbers = (typeof x === "number") - (typeof y === "number");
    if (numbers) return -numbers;  // what was not run stays below
    return (typeof x === "number" ? x - y : x.localeCompare(y)) * (up ? 1 : -1);
  };
  body.append(...[...body.rows].sort(order));
});
for (const image of document.images) {
  const smooth = () => image.classList.toggle("pixels", image.naturalWidth < image.clientWidth);  // enlarged: keep pixels sharp
  image.complete ? smooth() : image.addEventListener("load", smooth);
}
for (const button of document.querySelectorAll("button.open")) button.addEventListener("click", () => {
  const small = button.firstElementChild, box = document.createElement("dialog"), image = small.cloneNode();
  image.style.width = small.naturalWidth * Math.max(1, Math.floor(1200 / small.naturalWidth)) + "px";
  box.append(image);
  box.addEventListener("click", () => box.close());
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
});
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
