"use strict";
document.documentElement.classList.add("scripted");
// Values under the pointer. The page is whole without it.
for (const stack of document.querySelectorAll(".stack")) {
  const first = Number(stack.dataset.first), last = Number(stack.dataset.last);
  const panels = [...stack.querySelectorAll(".panel")].map((panel) => ({
    readout: panel.querySelector(".readout"),
    field: panel.querySelector(".field"),
    cross: panel.querySelector(".cross"),
    traces: [...panel.querySelectorAll("[data-steps]")].map((path) => {
      let sum = 0;
      return {
        label: path.dataset.label,
        steps: path.dataset.steps.split(" ").map((part) => (sum += Number(part))),
        values: path.dataset.values.split(" "),
      };
    }),
  })).filter((panel) => panel.readout && panel.cross);
  const show = (event) => {
    const box = panels[0].field.getBoundingClientRect();
    const place = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    const step = first + place * (last - first);
    stack.classList.add("reading");
    for (const panel of panels) {
      panel.cross.setAttribute("x1", 100 * place + "%");
      panel.cross.setAttribute("x2", 100 * place + "%");
      const told = panel.traces.map((trace) => {
        let low = 0, high = trace.steps.length - 1;
        while (low < high) {
          const middle = (low + high) >> 1;
          if (trace.steps[middle] < step) low = middle + 1; else high = middle;
        }
        if (low > 0 && step - trace.steps[low - 1] < trace.steps[low] - step) low -= 1;
        return (panel.traces.length > 1 ? trace.label + " " : "") + trace.values[low] +
          " at " + trace.steps[low].toLocaleString("en");
      });
      panel.readout.textContent = told.join("  ·  ");
    }
  };
  const hide = () => {
    stack.classList.remove("reading");
    for (const panel of panels) panel.readout.textContent = "";
  };
  if (panels.length) {
    stack.addEventListener("pointermove", show);
    stack.addEventListener("pointerdown", show);
    stack.addEventListener("pointerleave", hide);
  }
}
for (const button of document.querySelectorAll(".command button")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
}
