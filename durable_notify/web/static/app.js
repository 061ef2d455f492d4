// Live pages, local times, and buttons that copy. Pages work without it.
"use strict";

const body = document.body;
const announce = document.getElementById("announce");
let paused = localStorage.getItem("dn-paused") === "true";
let utc = localStorage.getItem("dn-utc") !== "false";
let source = null;
let timer = null;

// Times: the server writes UTC with milliseconds; the title always has that. A local time has its zone.
function showTimes(root) {
  for (const each of root.querySelectorAll("time[datetime]")) {
    const at = new Date(each.dateTime);
    if (isNaN(at)) continue;
    each.title = each.dateTime;
    each.textContent = utc ? each.dateTime : at.toLocaleString(undefined, {
      dateStyle: "short", timeStyle: "long",
    });
  }
  const zone = utc ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone;
  document.getElementById("zone-name").textContent = zone;
  document.getElementById("zone").textContent = zone;
  document.getElementById("zone").setAttribute("aria-pressed", String(!utc));
}

// A page that cannot be fetched again stays as it is, and says why, and of when it is.
const trouble = document.getElementById("trouble");
let fetched = new Date();
let failed = "";
body.addEventListener("htmx:response:error", (event) => {
  failed = `This page now answers ${event.detail.ctx.response.status}.`;
});
body.addEventListener("htmx:error", () => { failed = "The dashboard cannot be reached."; });

function showTrouble() {
  if (!failed) fetched = new Date();
  trouble.hidden = !failed;
  if (trouble.dataset.why === failed) return;  // said once
  trouble.dataset.why = failed;
  const at = document.createElement("time");
  at.dateTime = at.textContent = fetched.toISOString();
  trouble.replaceChildren(...(failed ? [`${failed} What you see is of `, at, "."] : []));
}

// Each live region is fetched again from its page, and morphed: focus, selection and open details stay.
async function refresh() {
  if (paused || document.hidden) return;
  const regions = document.querySelectorAll("[data-live]");
  if (!regions.length) return;
  failed = "";
  for (const each of regions) each.setAttribute("aria-busy", "true");
  try {
    for (const each of regions) {
      await htmx.ajax("GET", location.href, {
        target: `#${each.id}`, select: `#${each.id}`, swap: "outerMorph",
      });
    }
  } finally {
    for (const each of document.querySelectorAll("[data-live]")) each.removeAttribute("aria-busy");
    showTrouble();
    showTimes(document);
  }
}

let running = null;
let again = false;
function changed() {
  if (running) { again = true; return; }
  running = refresh().catch(() => {}).finally(() => {
    running = null;
    if (again) { again = false; changed(); }
  });
}

function listen() {
  if (source || paused || !document.querySelector("[data-live]")) return;
  source = new EventSource(body.dataset.events);
  source.addEventListener("changed", changed);
  source.addEventListener("open", () => { if (failed) changed(); });
  source.addEventListener("error", () => {
    changed();  // which says if the dashboard is gone
    // Refused for good, or cut by a proxy: look at intervals instead.
    if (source && source.readyState === EventSource.CLOSED && !timer) {
      timer = setInterval(changed, 10000);
    }
  });
}

function silence() {
  if (source) source.close();
  source = null;
  clearInterval(timer);
  timer = null;
}

const pause = document.getElementById("pause");
function showPause() {
  pause.textContent = paused ? "Resume" : "Pause";
  pause.setAttribute("aria-pressed", String(paused));
}
pause.addEventListener("click", () => {
  paused = !paused;
  localStorage.setItem("dn-paused", String(paused));
  showPause();
  announce.textContent = paused ? "The page is paused." : "The page is live.";
  if (paused) silence(); else { listen(); changed(); }
});

document.getElementById("zone").addEventListener("click", () => {
  utc = !utc;
  localStorage.setItem("dn-utc", String(utc));
  showTimes(document);
});

document.getElementById("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("dn-theme", next);
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  announce.textContent = "Copied.";
});

document.addEventListener("visibilitychange", () => { if (!document.hidden) changed(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, textarea, select")) return;
  const field = document.querySelector("main input[type=search], main input[type=text]");
  if (field) { event.preventDefault(); field.focus(); }
});

showPause();
showTimes(document);
listen();
