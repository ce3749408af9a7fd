"use strict";
// Choosing in a dropdown filter shows the result at once; its button does the same without this file.
document.addEventListener("change", function (event) {
    const select = event.target.closest("[data-sked-filter]");
    if (select) {
        window.location.search = select.selectedOptions[0].dataset.query;
    }
});
