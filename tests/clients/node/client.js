// node-consul against the agent at the address given: what a program of its users does, one thing after the other.
"use strict";
const assert = require("assert");
const Consul = require("consul");

const client = new Consul({ host: process.argv[2] });

// Follows what is read until it is as expected.
function watch(method, options, holds) {
  return new Promise((resolve, reject) => {
    const watched = client.watch({ method, options, maxAttempts: 0 });
    watched.on("error", reject);
    watched.on("change", (found) => {
      if (!holds(found)) return;
      watched.end();
      resolve(found);
    });
  });
}

const ids = (nodes) => nodes.map((node) => node.Service.ID);
const passing = (holds) => watch(client.health.service.bind(client.health), { service: "web", passing: true }, holds);
const key = (name, holds) => watch(client.kv.get.bind(client.kv), { key: name }, holds);

async function main() {
  // Registers, is seen, changes, is lost.
  assert.equal((await client.agent.self()).Config.Datacenter, "dc1");
  assert.deepEqual((await client.agent.members()).map((member) => member.Status), [1]);
  assert.deepEqual(await client.status.peers(), [await client.status.leader()]);
  for (const number of [1, 2]) {
    await client.agent.service.register({
      name: "web",
      id: `web-${number}`,
      port: 8000 + number,
      tags: ["v1"],
      meta: { n: `${number}` },
      check: { ttl: "60s" },
    });
  }
  let seen = passing((nodes) => ids(nodes).join() === "web-1,web-2");
  for (const number of [1, 2]) await client.agent.check.pass({ id: `service:web-${number}`, note: "fine" });
  assert.deepEqual((await seen).map((node) => node.Service.Port), [8001, 8002]);
  seen = passing((nodes) => ids(nodes).join() === "web-1");
  await client.agent.check.fail({ id: "service:web-2", note: "no" });
  await seen;
  seen = passing((nodes) => nodes.length === 0);
  await client.agent.service.deregister("web-1");
  await seen;
  assert.deepEqual(Object.keys(await client.agent.service.list()), ["web-2"]);
  assert.deepEqual((await client.catalog.service.list()).web, ["v1"]);
  assert.deepEqual((await client.catalog.service.nodes("web")).map((node) => node.ServiceID), ["web-2"]);
  assert.deepEqual((await client.health.checks("web")).map((check) => check.Output), ["no"]);

  // Keys, and one that is waited for.
  assert.equal(await client.kv.get("app/limit"), undefined);
  seen = key("app/limit", (value) => value !== undefined);
  assert.equal(await client.kv.set({ key: "app/limit", value: "120", flags: 42 }), true);
  assert.deepEqual([(await seen).Value, (await seen).Flags], ["120", 42]);
  // This client makes `undefined` of `false`.
  assert.ok(!(await client.kv.set({ key: "app/limit", value: "0", cas: "0" })));
  assert.deepEqual(await client.kv.keys("app/"), ["app/limit"]);

  // A lock: taken, refused to another, lost with its session.
  const options = { lockdelay: "0s", ttl: "60s" };
  const mine = (await client.session.create({ name: "mine", ...options })).ID;
  const other = (await client.session.create({ name: "other", ...options })).ID;
  assert.equal(await client.kv.set({ key: "lock", value: "mine", acquire: mine }), true);
  assert.ok(!(await client.kv.set({ key: "lock", value: "other", acquire: other })));
  assert.equal((await client.session.renew(mine))[0].Name, "mine");
  seen = key("lock", (value) => value.Session === undefined);
  await client.session.destroy(mine);
  assert.equal((await seen).Value, "mine");
  assert.equal(await client.kv.set({ key: "lock", value: "other", acquire: other }), true);
  assert.equal(await client.kv.set({ key: "lock", value: "", release: other }), true);

  // Events, and several things at once.
  const fired = await client.event.fire("deploy", "v2");
  const heard = await client.event.list("deploy");
  assert.deepEqual([heard.length, heard[0].ID, heard[0].Payload], [1, fired.ID, "v2"]);
  const done = await client.transaction.create([{ KV: { Verb: "set", Key: "a", Value: "MQ==" } }]);
  assert.equal(done.Errors, null);
}

main().then(
  () => console.log("done"),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
