"use strict";
// Brings the figures up to date while somebody can see them, and gives each number of threads a slider. Without this
// file the page shows what it showed when it was loaded, and the number is typed.
(function () {
    const EVERY = 5000;
    let timer = null;

    async function refresh() {
        const response = await fetch(window.location.href, {credentials: "same-origin"});
        // Elsewhere is the login; any other error may pass.
        if (response.redirected || response.status === 403) {
            return stop();
        }
        if (!response.ok) {
            return;
        }
        const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
        for (const place of document.querySelectorAll("[data-sked-live]")) {
            const other = fresh.getElementById(place.id);
            // What has the focus stays, so that nobody who uses the keyboard is thrown out of it.
            if (other !== null && !place.contains(document.activeElement)) {
                place.replaceWith(document.adoptNode(other));
            }
        }
        document.documentElement.dataset.skedRefreshed = String(Number(document.documentElement.dataset.skedRefreshed || 0) + 1);
    }

    function tick() {
        refresh().catch(function () {}); // the server is away: the next time
    }

    function stop() {
        window.clearInterval(timer);
        timer = null;
    }

    function goOn() {
        if (timer === null && !document.hidden) {
            timer = window.setInterval(tick, EVERY);
        }
    }

    document.addEventListener("visibilitychange", function () {
        if (document.hidden) {
            stop();
        } else {
            tick();
            goOn();
        }
    });

    document.addEventListener("DOMContentLoaded", function () {
        for (const form of document.querySelectorAll("[data-sked-scale]")) {
            const slider = form.querySelector("input[type=range]");
            const number = form.querySelector("input[type=number]");
            slider.hidden = false;
            slider.addEventListener("input", function () { number.value = slider.value; });
            number.addEventListener("input", function () { slider.value = number.value || slider.min; });
        }
        goOn();
    });
})();
