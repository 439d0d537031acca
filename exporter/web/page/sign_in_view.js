// The form for the credential, which also says why one was not enough.

import { canBeCredential } from "./api.js";
import { element } from "./dom.js";
import { heading, notice } from "./parts.js";

/**
 * @param refused null, or the Refusal that brought us here
 * @param signIn called with a credential
 * @param again called to try the present one once more
 */
export function signInView({ refused, signIn, again }) {
  const field = element("input", { id: "credential", name: "credential", type: "password",
    required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "kept",
    "aria-invalid": refused?.status === 401 ? "true" : null });
  return element("section", { id: "sign-in", class: "panel sign-in" },
    heading("Sign in"),
    element("div", { id: "refused", role: "alert" }, refused && reason(refused, again)),
    element("form", { onsubmit: (event) => submit(event, signIn) },
      element("label", { for: "credential" }, "API key or token"), field,
      element("p", { id: "kept", class: "muted small" },
        "Kept for this tab only, until it is closed or you sign out."),
      element("button", { type: "submit", class: "primary" }, "Sign in")));
}

function reason({ status, message }, again) {
  if (status === 403) {
    return notice("bad", element("strong", {}, "This credential is valid, but may not see jobs. "),
      "It lacks the permission ", element("code", {}, "manage:all"), " (Super Admin). ",
      "Use another one, or ",
      element("button", { type: "button", id: "again", onclick: again }, "try it again"));
  }
  if (status === "impossible") return notice("bad", message);
  return notice("bad", element("strong", {}, "The credential was not accepted. "),
    "It may be wrong, expired or revoked.");
}

function submit(event, signIn) {
  event.preventDefault();
  const text = event.currentTarget.elements.credential.value.trim();
  event.currentTarget.reset();
  signIn(text, canBeCredential(text));
}
