// Registration of the service worker, after the page is loaded.

const WORKER = new URL("web/worker.js", document.baseURI).href; // below a path, where a proxy adds one
const SCOPE = new URL(".", document.baseURI).href;

/** Registers it, which lets the browser install the page. Browsers without workers, and insecure
 *  addresses (http on another machine), skip this; the page works without. */
export async function registerWorker() {
  if (!("serviceWorker" in navigator)) return;
  const policy = self.trustedTypes?.createPolicy("worker", { createScriptURL: () => WORKER });
  const url = policy?.createScriptURL(WORKER) ?? WORKER;
  await navigator.serviceWorker.register(url, { scope: SCOPE });
}
