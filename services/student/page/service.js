/** The service's public API: what the page asks of it, and what went wrong in words. */

const PATIENCE_MS = 15_000;

let key = null;

/** Send this key with every request from now on. It is kept here and nowhere else. */
export function useKey(given) {
  key = given || null;
}


/**
 * Why a request was not answered.
 *
 * `kind` is `unreachable`, `slow`, `foreign` (something between us and the service answered),
 * `replaced` (a newer request took its place), or `refused`, for which `status` and `code` say why;
 * `retryAfter` is in seconds, `withKey` says whether a key was sent.
 */
export class ServiceError extends Error {
  constructor(kind, message, details = {}) {
    super(message);
    this.kind = kind;
    const unknown = { status: null, code: null, retryAfter: null, requestId: null, withKey: false };
    Object.assign(this, unknown, details);
  }
}

/** The body of `GET /info`. */
export function fetchInfo() {
  return send("info");
}

/** The body of `GET /readyz`, whether it is ready or not. */
export async function fetchReadiness() {
  try {
    return { ...(await send("readyz")).body, reason: null };
  } catch (error) {
    if (error.kind !== "refused" || error.status !== 503) throw error;
    return { status: "not ready", reason: error.message };
  }
}

/**
 * Classify one input and have the answer explained.
 *
 * @param {string|string[]} inputs a text, or the two of a pair
 * @param {{truncate?: boolean, signal?: AbortSignal}} options
 */
export async function classify(inputs, { truncate, signal } = {}) {
  const content = { inputs, explain: true };
  if (truncate !== undefined) content.truncate = truncate;
  const started = performance.now();
  const answer = await send("predict", { content, signal });
  return { ...answer, roundTrip: (performance.now() - started) / 1000 };
}

async function send(path, { content, signal } = {}) {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort("slow"), PATIENCE_MS);
  signal?.addEventListener("abort", () => patience.abort("replaced"));
  const headers = { accept: "application/json" };
  if (content !== undefined) headers["content-type"] = "application/json";
  if (key !== null) headers.authorization = `Bearer ${key}`;
  try {
    const response = await fetch(path, {
      method: content === undefined ? "GET" : "POST",
      headers,
      body: content === undefined ? undefined : JSON.stringify(content),
      signal: patience.signal,
      cache: "no-store",
      credentials: "same-origin",
    });
    const body = await readJson(response);
    if (response.ok && body !== null) return { body };
    throw refusal(response, body);
  } catch (error) {
    if (error instanceof ServiceError) throw error;
    if (patience.signal.reason === "replaced") throw new ServiceError("replaced", "Replaced.");
    if (patience.signal.aborted) {
      throw new ServiceError("slow", `No answer within ${PATIENCE_MS / 1000} seconds.`);
    }
    throw new ServiceError("unreachable", "The service cannot be reached.");
  } finally {
    clearTimeout(timer);
  }
}

async function readJson(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function refusal(response, body) {
  const requestId = response.headers.get("x-request-id");
  if (body === null || typeof body.error !== "string") {
    const told = `Something that is not this service answered (HTTP ${response.status}).`;
    return new ServiceError("foreign", told, { status: response.status, requestId });
  }
  return new ServiceError("refused", body.error, {
    status: response.status,
    code: body.code ?? null,
    retryAfter: Number(response.headers.get("retry-after")) || null,
    requestId,
    withKey: key !== null,
  });
}
