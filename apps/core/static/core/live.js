// Keeps the state of something that runs up to date: fetches the live parts of the page every two seconds, and loads the
// whole page once when it has ended. Without scripts the page refreshes itself as a whole (see detail.html).
"use strict";

const EVERY = 2000; // milliseconds

const refresh = async (live) => {
  let answer;
  try {
    answer = await fetch(live.dataset.url, { headers: { Accept: "text/html" }, redirect: "error" });
  } catch {
    answer = null;
  }
  const note = document.getElementById("live-note");
  if (answer?.ok) {
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      part.innerHTML = fresh.querySelector(`[data-live="${part.dataset.live}"]`)?.innerHTML ?? part.innerHTML;
    }
    note.hidden = true;
    if (fresh.querySelector("[data-ended]")) {
      window.location.reload();
      return;
    }
  } else {
    note.hidden = false; // what is shown may be old: the console is away, or the session has ended
  }
  window.setTimeout(refresh, EVERY, live);
};

document.addEventListener("DOMContentLoaded", () => {
  const live = document.getElementById("live");
  if (live?.dataset.url) {
    window.setTimeout(refresh, EVERY, live);
  }
});
