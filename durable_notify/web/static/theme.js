// Before the page is drawn, so that a dark page does not flash.
"use strict";
const theme = localStorage.getItem("dn-theme");
if (theme) document.documentElement.dataset.theme = theme;
