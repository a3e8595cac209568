// Errors of the page: shown in the notice, with the field for the key or a watch of the connection
// where these help.

import { ConnectionLost } from "./api.js";
import { Connection } from "./connection.js";
import { byId } from "./dom.js";
import { t } from "./language.js";
import { InvalidParameter } from "./parameters.js";

export class ErrorReport {
  #notice;
  #options;
  #connection;

  /** `onReconnected` is called once a server that was lost answers again. */
  constructor({ notice, options, onReconnected }) {
    this.#notice = notice;
    this.#options = options;
    this.#connection = new Connection({ onReconnected });
  }

  /** Shows an error, and a button for each action: a label, and the function to call. */
  show(error, actions = []) {
    if (error.status === 401) this.#options.showField(byId("key"));
    if (error instanceof InvalidParameter) this.#options.showField(error.field);
    this.#notice.show(this.#textOf(error), actions);
    if (error instanceof ConnectionLost) this.#connection.watch();
    if (error.status === undefined) reportError(error); // a bug of the page: it belongs into the console
  }

  /** Shows an error unless the notice shows an earlier one, which is the one to know of. */
  showIfNoticeIsFree(error) {
    if (!this.#notice.isShown) this.show(error);
  }

  #textOf({ status, message }) {
    if (status === undefined) return t("The page failed: {message}", { message });
    if (status === 401 && !this.#options.hasKey)
      return t("This server needs an API key: enter it into the field above.");
    return message;
  }
}
