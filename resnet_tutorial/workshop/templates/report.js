const box = document.querySelector("dialog"), all = [...document.querySelectorAll(".figures button")];
let at = 0;
function show(i) {
  at = (i + all.length) % all.length;
  const from = all[at].querySelector("img"), to = box.querySelector("img"), link = document.createElement("a");
  to.src = from.src; to.alt = from.alt; link.href = all[at].dataset.page; link.textContent = "read the chapter";
  box.querySelector("p").replaceChildren(all[at].dataset.caption, " ", link);
  if (!box.open) box.showModal();
}
all.forEach((button, i) => button.addEventListener("click", () => show(i)));
box.addEventListener("click", event => { if (event.target.tagName !== "A") box.close(); });
box.addEventListener("keydown", event => {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key]; if (step) show(at + step); });
