"use strict";
// Shows openapi.json. Everything is set as text, never as markup.

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function resolve(api, schema) {
  const path = schema?.$ref?.split("/").slice(1);
  return path ? path.reduce((here, key) => here[key], api) : schema ?? {};
}

// A type in words: "integer or null, 5 to 3600".
function words(api, schema) {
  const whole = resolve(api, schema);
  if (whole.anyOf) return whole.anyOf.map((one) => words(api, one)).join(" or ");
  const said = [[whole.type ?? "any"].flat().join(" or ")];
  if (whole.items) said.push(`of ${words(api, whole.items)}`);
  if (whole.format) said.push(`(${whole.format})`);
  if (whole.enum) said.push(`: ${whole.enum.map((one) => JSON.stringify(one)).join(", ")}`);
  if ("minimum" in whole) said.push(`from ${whole.minimum}`);
  if ("maximum" in whole) said.push(`to ${whole.maximum}`);
  if (whole.minLength) said.push("not empty");
  if (whole.maxItems) said.push(`at most ${whole.maxItems}`);
  if (whole.pattern) said.push(`like ${whole.pattern}`);
  return said.join(" ");
}

function table(head, rows) {
  const line = (cells, name) => make("tr", {}, ...cells.map((cell) => make(name, {}, cell)));
  return make("table", {}, line(head, "th"), ...rows.map((row) => line(row, "td")));
}

function fields(api, schema) {
  const whole = resolve(api, schema);
  const rows = Object.entries(whole.properties ?? {}).map(([name, field]) => [
    make("code", {}, name),
    words(api, field),
    whole.required?.includes(name) ? "always" : "default" in field ? JSON.stringify(field.default) : "",
  ]);
  return rows.length ? table(["Field", "Type", "Required, or default"], rows) : "";
}

function media(api, content) {
  return Object.entries(content ?? {}).flatMap(([type, body]) => {
    const examples = "example" in body ? [body.example]
      : Object.values(body.examples ?? {}).map((one) => one.value);
    return [
      make("p", {}, make("code", {}, type)),
      fields(api, body.schema),
      ...examples.map((one) => make("pre", {}, JSON.stringify(one, null, 2))),
    ];
  });
}

function route(api, path, method, operation) {
  const gate = operation.security.length ? Object.keys(operation.security[0])[0] : "open";
  const title = make("summary", {},
    make("span", { class: `method ${method}` }, method.toUpperCase()),
    make("code", {}, path), ` ${operation.summary} `, make("span", { class: "gate" }, gate));
  const parts = [title, make("p", {}, operation.description)];
  const parameters = (operation.parameters ?? []).map((one) => [
    make("code", {}, one.name), one.in, words(api, one.schema), one.required ? "always" : "",
  ]);
  if (parameters.length) {
    parts.push(make("h4", {}, "Parameters"), table(["Name", "In", "Type", "Required"], parameters));
  }
  if (operation.requestBody) parts.push(make("h4", {}, "Request"), ...media(api, operation.requestBody.content));
  for (const [status, answer] of Object.entries(operation.responses)) {
    parts.push(make("details", {},
      make("summary", {}, make("strong", {}, status), ` ${answer.description}`), ...media(api, answer.content)));
  }
  return make("details", { class: "route", id: operation.operationId }, ...parts);
}

function show(api) {
  document.getElementById("about").textContent = `${api.info.version}. ${api.info.description}`;
  const main = document.getElementById("routes");
  const seen = new Set();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const [tag] = operation.tags;
      if (!seen.has(tag)) main.append(make("h2", {}, tag));
      seen.add(tag);
      main.append(route(api, path, method, operation));
    }
  }
}

fetch("openapi.json")
  .then((answer) => answer.json())
  .then(show)
  .catch((error) => { document.getElementById("about").textContent = `openapi.json: ${error.message}`; });
