// Convenience only: every page works without this file. It keeps nothing and asks nothing of other places.
"use strict";

// Filter a table as one types.
for (const box of document.querySelectorAll("[data-filters]")) {
  const table = document.getElementById(box.dataset.filters);
  if (!table) continue;
  box.hidden = false;
  const input = box.querySelector("input");
  const count = box.querySelector("[role=status]");
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      if (!row.hidden) shown += 1;
    }
    count.textContent = wanted ? `${shown} shown` : "";
  });
}

// Copy what stands in an element.
for (const button of document.querySelectorAll("button[data-copies]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  const before = button.textContent;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent.trim());
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 2000);
  });
}

// After a refusal, go to what it is about.
const wrong = document.querySelector("[aria-invalid=true]") || document.getElementById("error");
if (wrong) wrong.focus();

// Say when the session ends by itself, a minute ahead, and leave the page once it has. Pages in other tabs are the
// same session: whichever loads tells the others, so that none leaves while another is in use.
const idle = Number(document.body.dataset.idle || 0);
if (idle) {
  const warning = document.getElementById("idle");
  let ends = Date.now() + idle * 1000;
  const tabs = new BroadcastChannel("kms-console");
  tabs.addEventListener("message", () => {
    ends = Date.now() + idle * 1000;
    warning.hidden = true;
  });
  tabs.postMessage("used");
  const timer = setInterval(() => {
    const left = Math.round((ends - Date.now()) / 1000);
    if (left <= -2) {
      clearInterval(timer);
      window.location.assign("/console");
    } else if (left <= 60) {
      warning.hidden = false;
      warning.querySelector("[data-seconds]").textContent = String(Math.max(0, left));
    }
  }, 1000);
}

// Passkeys: have the browser make or use one, and send what it says with the form.
for (const form of document.querySelectorAll("form[data-passkey]")) {
  const { parseCreationOptionsFromJSON, parseRequestOptionsFromJSON } = window.PublicKeyCredential || {};
  if (!parseCreationOptionsFromJSON || !parseRequestOptionsFromJSON) continue;
  const said = form.querySelector("[role=alert]");
  const ask = async () => {
    if (form.dataset.passkey === "create") {
      const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(JSON.parse(form.dataset.options));
      return navigator.credentials.create({ publicKey });
    }
    const answer = await fetch("/auth/passkey/options", { method: "POST", credentials: "omit" });
    const options = await answer.json();
    if (!answer.ok) throw new Error(options.detail);
    return navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
  };
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.hidden = true;
    try {
      form.elements.passkey.value = JSON.stringify((await ask()).toJSON());
      form.submit();
    } catch (fault) {
      said.textContent = fault.name === "NotAllowedError" ? "That was cancelled, or took too long." : fault.message;
      said.hidden = false;
    }
  });
}
