// A single-page app with what bundlers make of one: a style sheet with an image, a module that is loaded when it is
// needed, and a router whose addresses exist in the browser only.
import "./style.css";

// Where it is: `BASE` is what Vite calls `base`, "/" or "./".
const base = new URL(BASE, location.href).pathname;

async function show() {
    const path = location.pathname.slice(base.length);
    document.querySelector("h1").textContent = path === "" ? "Home" : "Page";
    document.querySelector("output").textContent = path === "" ? "" : (await import("./page.js")).text(path);
}

document.querySelector("a").addEventListener("click", (event) => {
    event.preventDefault();
    history.pushState(null, "", `${base}orders/7`);
    show();
});
addEventListener("popstate", show);
show();
