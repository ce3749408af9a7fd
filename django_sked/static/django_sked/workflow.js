"use strict";
// Keeps the picture of a workflow up to date while its tab is in view; without this file it is as of the page's load.
(function () {
    let timer = null;
    let isBusy = false;
    let isOver = false;
    let etag = "";

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
            // Not left to the browser's cache, which is told to keep nothing of the admin.
            const headers = etag ? {"If-None-Match": etag} : {};
            const response = await fetch(live.dataset.skedLive, {cache: "no-store", credentials: "same-origin", headers});
            // Elsewhere is the login, and a workflow that is gone stays so; any other error may pass.
            isOver = response.redirected || response.status === 403 || response.status === 404;
            if (response.ok && !isOver) {
                pause = show(live, await response.text()) || pause;
                etag = response.headers.get("ETag") || "";
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
