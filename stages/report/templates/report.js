(() => {
  const all = (query, from = document) => [...from.querySelectorAll(query)];
  const make = (tag, more) => Object.assign(document.createElement(tag), more);
  // Sorting by a column's heading: the highest number first, or the first word. No figure: last.
  all("table.sortable").forEach(table => all("thead th", table).forEach((head, at) => {
    const button = make("button", {type: "button", textContent: head.textContent});
    head.replaceChildren(button);
    button.onclick = () => {
      const key = row => {
        const cell = row.cells[at];
        const text = (cell.querySelector(".figure") || cell).textContent;
        return cell.dataset.value ?? text.replace(/^[^\p{L}\p{N}−-]+/u, "");
      };
      const size = row => {
        const x = parseFloat(key(row).replace(/,/g, "").replace("−", "-"));
        return isNaN(x) ? -Infinity : x;
      };
      const words = [...table.tBodies[0].rows].every(row => size(row) === -Infinity);
      const down = words ? head.ariaSort === "ascending" : head.ariaSort !== "descending";
      const sign = down ? -1 : 1;
      const order = (a, b) => sign * (words ? key(a).localeCompare(key(b)) : size(a) - size(b) || 0);
      all("thead th", table).forEach(one => one.removeAttribute("aria-sort"));
      head.ariaSort = down ? "descending" : "ascending";
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    };
  }));
  // Models to show, in tables, figures and predictions.
  const names = new Map(all("#results [data-model] th, #compare th[data-model]")
    .map(one => [one.closest("[data-model]").dataset.model, one.textContent.trim().replace(/^\W\s*/, "")]));
  if (names.size > 1) {
    const bar = make("div", {className: "models"});
    names.forEach((name, model) => {
      const box = make("input", {type: "checkbox", checked: true});
      const label = make("label");
      label.append(box, " " + name);
      box.onchange = () => all(`[data-model="${model}"]`).forEach(one => one.classList.toggle("off", !box.checked));
      bar.append(label);
    });
    document.querySelector("nav").append(bar);
  }
  // At most three models side by side: a fourth takes the place of the first.
  all(".chooser").forEach(chooser => {
    const on = all("input:checked", chooser);
    all("input", chooser).forEach(box => box.onchange = () => {
      if (!box.checked) on.splice(on.indexOf(box), 1);
      else if (on.push(box) > 3) on.shift().checked = false;
    });
  });
  // A word that queries must hold.
  all(".queries").forEach(part => {
    const field = make("input", {type: "search", placeholder: "only queries with …", ariaLabel: "Only queries with"});
    field.oninput = () => all("details.query", part).forEach(
      one => one.classList.toggle("off", !one.textContent.toLowerCase().includes(field.value.toLowerCase())));
    part.prepend(field);
  });
  // Paper shows all.
  addEventListener("beforeprint", () => all("details").forEach(one => one.open = true));
})();
