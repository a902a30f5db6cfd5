// Pictures that zoom: wider than their frame, which then scrolls, by buttons or by its arrow keys.
for (const figure of document.querySelectorAll("figure")) {
  const picture = figure.querySelector("svg"), said = figure.querySelector("output");
  let times = 1;
  for (const button of figure.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      times = Math.min(16, Math.max(1, times * Number(button.value)));
      picture.style.width = 100 * times + "%";
      said.textContent = times + " times";
    });
  }
}
