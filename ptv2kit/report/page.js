"use strict";
// Sorts a table by the column whose button was pressed; once more turns it round. Empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((cell) => cell.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows].map((row) => {
        const cell = row.cells[index];
        const number = "value" in cell.dataset ? Number(cell.dataset.value) : null;
        return { row, number, text: cell.textContent };
      });
      rows.sort((a, b) => {
        if ((a.text === "") !== (b.text === "")) return a.text === "" ? 1 : -1;
        if (a.number !== null && b.number !== null) return sign * (a.number - b.number);
        if ((a.number === null) !== (b.number === null)) return a.number === null ? 1 : -1;
        return sign * a.text.localeCompare(b.text, "en", { numeric: true });
      });
      table.tBodies[0].append(...rows.map((item) => item.row));
    });
  });
}
