// What the page asks its server for. Every refusal is an Error whose message is for the user.

export async function get(path, parameters = {}) {
  return (await checkedResponse(fetch(`${path}?${new URLSearchParams(parameters)}`))).json();
}

// body: the image to search for, or null.
export async function post(path, parameters, body, signal) {
  return checkedResponse(fetch(`${path}?${parameters}`, { method: "POST", body, signal }));
}

async function checkedResponse(request) {
  let response;
  try {
    response = await request;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is reidexport web still running?");
  }
  if (response.ok) return response;
  if (response.status === 403) throw new Error("This page is out of date. Open the address that reidexport printed.");
  const reason = await response.json().then((answer) => answer.error, () => undefined);
  throw new Error(reason ?? `The server could not answer (status ${response.status}).`);
}
