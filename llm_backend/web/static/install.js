// Registers the service worker, once the page has nothing better to do.

const WORKER = "/web/worker.js";

/** Lets the browser install the page. Browsers without workers, and addresses that are no secure
 *  ones (http on another machine), do not; the page needs none. */
export async function registerWorker() {
  if (!("serviceWorker" in navigator)) return;
  const policy = self.trustedTypes?.createPolicy("worker", { createScriptURL: () => WORKER });
  const url = policy?.createScriptURL(WORKER) ?? WORKER;
  await navigator.serviceWorker.register(url, { scope: "/" });
}
