"use strict";
// Keeps the picture of a workflow up to date while its tab is in view; without this file it is as of the page's load.
(function () {
    let timer = null;
    let isBusy = false;
    let isOver = false;

    function wait(live, pause) {
        window.clearTimeout(timer);
        if (!document.hidden && !isOver) {
            timer = window.setTimeout(refresh, pause, live);
        }
    }

    function show(live, text) {
        const fresh = new DOMParser().parseFromString(text, "text/html");
        const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
        for (const part of live.querySelectorAll("[data-sked-part]")) {
            const other = fresh.querySelector(`[data-sked-part="${part.dataset.skedPart}"]`);
            if (other && other.innerHTML !== part.innerHTML) {
                part.replaceChildren(...other.childNodes);
            }
        }
        if (focused && document.activeElement.id !== focused) {
            document.getElementById(focused)?.focus({preventScroll: true});
        }
        return Number(fresh.querySelector("[data-sked-pause]")?.dataset.skedPause);
    }

    async function refresh(live) {
        if (isBusy) {
            return;
        }
        isBusy = true;
        const began = performance.now();
        let pause = Number(live.querySelector("[data-sked-pause]").dataset.skedPause);
        try {
            const response = await fetch(live.dataset.skedLive, {cache: "no-cache", credentials: "same-origin"});
            // Elsewhere is the login; an error of the server may pass.
            isOver = response.redirected || (response.status >= 400 && response.status < 500);
            if (response.ok && !isOver) {
                pause = show(live, await response.text()) || pause;
            }
        } catch {
            // The server is away: try again.
        }
        isBusy = false;
        wait(live, Math.max(pause, 5 * (performance.now() - began)));
    }

    document.addEventListener("DOMContentLoaded", function () {
        const live = document.querySelector("[data-sked-live]");
        if (live) {
            document.addEventListener("visibilitychange", () => wait(live, 0));
            wait(live, Number(live.querySelector("[data-sked-pause]").dataset.skedPause));
        }
    });
})();
