// The form for the credential, which also says why one was not accepted.

import { canBeCredential } from "./api.js";
import { html } from "./html.js";
import { heading, notice } from "./parts.js";

/**
 * Why somebody is not signed in; "impossible" for a text that cannot be a credential.
 *
 * @typedef {{status: number | "impossible", message: string}} Refused
 */

/**
 * @param {object} state
 * @param {Refused | null} state.refused the refusal that brought us here
 * @param {(text: string, possible: boolean) => void} state.signIn called with a credential, and
 *   whether it can be one
 * @param {() => void} state.again called to try the present one once more
 */
export function signInView({ refused, signIn, again }) {
  const isInvalid = refused?.status === 401 ? "true" : undefined;
  return html`<section id="sign-in" class="panel sign-in">
    ${heading("Sign in")}
    <div id="refused" role="alert">${refused && reason(refused, again)}</div>
    <form onsubmit=${(/** @type {SubmitEvent} */ event) => submit(event, signIn)}>
      <label for="credential">API key or token</label>
      <input id="credential" name="credential" type="password" required autocomplete="off"
        spellcheck=${false} aria-describedby="kept" aria-invalid=${isInvalid} />
      <p id="kept" class="muted small">
        Kept for this tab only, until it is closed or you sign out.
      </p>
      <button type="submit" class="primary">Sign in</button>
    </form>
  </section>`;
}

/**
 * @param {Refused} refused
 * @param {() => void} again
 */
function reason({ status, message }, again) {
  if (status === 403) {
    return notice(
      "bad",
      html`<strong>This credential is valid, but may not see jobs. </strong>
        It lacks the permission <code>manage:all</code> (Super Admin). Use another one, or${" "}
        <button type="button" id="again" onclick=${again}>try it again</button>`,
    );
  }
  if (status === "impossible") return notice("bad", message);
  return notice(
    "bad",
    html`<strong>The credential was not accepted. </strong>It may be wrong, expired or revoked.`,
  );
}

/**
 * @param {SubmitEvent} event
 * @param {(text: string, possible: boolean) => void} signIn
 */
function submit(event, signIn) {
  event.preventDefault();
  const form = /** @type {HTMLFormElement} */ (event.currentTarget);
  const text = String(new FormData(form).get("credential")).trim();
  form.reset();
  signIn(text, canBeCredential(text));
}
