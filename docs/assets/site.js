"use strict";
// What the theme leaves out for keyboards and screen readers.

// Code and tables that scroll are reached with the Tab key, also where there is no mouse. The buttons beside a block of
// code, and the lists in the table of contents, are no navigations of their own, of which a page would have dozens.
const complete = () => {
  for (const part of document.querySelectorAll("pre > code, .md-typeset__scrollwrap")) {
    if (part.scrollWidth > part.clientWidth && !part.hasAttribute("tabindex")) part.tabIndex = 0;
  }
  for (const part of document.querySelectorAll('.md-code__nav, [data-md-component="toc"] nav')) {
    part.setAttribute("role", "presentation");
    part.removeAttribute("aria-label");
  }
};

// A part of the menu that has a page of its own is named by its title, because its label is only an arrow.
for (const menu of document.querySelectorAll(".md-nav[aria-labelledby]")) {
  const title = menu.querySelector(":scope > .md-nav__title");
  menu.removeAttribute("aria-labelledby");
  menu.setAttribute("aria-label", title.textContent.trim());
}

new MutationObserver(complete).observe(document.body, { subtree: true, childList: true, attributeFilter: ["tabindex"] });
addEventListener("resize", complete);
complete();
