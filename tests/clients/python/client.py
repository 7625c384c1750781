"""py-consul against the agent at the address given: what a program of its users does, one thing after the other."""

import sys
from concurrent.futures import ThreadPoolExecutor

import consul

address = sys.argv[1]
client, watcher = consul.Consul(address), consul.Consul(address)
pool = ThreadPoolExecutor()


def watch(read, holds):
    """Follows what is read, from one index to the next, until it is as expected."""

    def follow():
        index = None
        while True:
            index, found = read(index)
            assert int(index) > 0
            if holds(found):
                return found

    return pool.submit(follow)


def ids(nodes):
    return [node["Service"]["ID"] for node in nodes]


def passing(index):
    return watcher.health.service("web", index=index, wait="20s", passing=True)


# Registers, is seen, changes, is lost.
assert client.agent.self()["Config"]["Datacenter"] == "dc1"
assert [member["Status"] for member in client.agent.members()] == [1]
assert client.status.leader() in client.status.peers()
for number in (1, 2):
    check = consul.Check.ttl("60s")
    client.agent.service.register(
        "web", service_id=f"web-{number}", port=8000 + number, tags=["v1"], meta={"n": str(number)}, check=check
    )
seen = watch(passing, lambda nodes: ids(nodes) == ["web-1", "web-2"])
for number in (1, 2):
    client.agent.check.ttl_pass(f"service:web-{number}", "fine")
assert [node["Service"]["Port"] for node in seen.result(30)] == [8001, 8002]
seen = watch(passing, lambda nodes: ids(nodes) == ["web-1"])
client.agent.check.ttl_fail("service:web-2", "no")
seen.result(30)
seen = watch(passing, lambda nodes: nodes == [])
client.agent.service.deregister("web-1")
seen.result(30)
assert list(client.agent.services(filter_expr="Meta.n==2")) == ["web-2"]
assert client.agent.services(filter_expr="Meta.n!=2") == {}
assert client.catalog.services()[1]["web"] == ["v1"]
assert [node["ServiceID"] for node in client.catalog.service("web")[1]] == ["web-2"]
assert [check["Output"] for check in client.health.checks("web")[1]] == ["no"]
assert client.catalog.register("printer", "10.0.0.90", service={"Service": "ipp", "Port": 631})
assert client.catalog.node("printer")[1]["Services"]["ipp"]["Port"] == 631
assert client.catalog.node("nobody")[1] is None

# Keys, and one that is waited for.
assert client.kv.get("app/limit")[1] is None
seen = watch(lambda index: watcher.kv.get("app/limit", index=index, wait="20s"), lambda value: value is not None)
assert client.kv.put("app/limit", "120", flags=42)
value = seen.result(30)
assert (value["Value"], value["Flags"]) == (b"120", 42)
assert not client.kv.put("app/limit", "0", cas=0)
assert client.kv.get("app/", keys=True)[1] == ["app/limit"]

# A lock: taken, refused to another, lost with its session.
mine, other = (client.session.create(name, lock_delay=0, ttl=60) for name in ("mine", "other"))
assert client.kv.put("lock", "mine", acquire=mine)
assert not client.kv.put("lock", "other", acquire=other)
assert client.session.info(mine)[1]["Name"] == "mine"
client.session.renew(mine)
seen = watch(lambda index: watcher.kv.get("lock", index=index, wait="20s"), lambda value: "Session" not in value)
assert client.session.destroy(mine)
assert seen.result(30)["Value"] == b"mine"
assert client.kv.put("lock", "other", acquire=other)
assert client.kv.put("lock", "", release=other)
assert client.kv.delete("", recurse=True)

# Events, and several things at once.
fired = client.event.fire("deploy", "v2")
assert [event["ID"] for event in client.event.list("deploy")[1]] == [fired["ID"]]
results = client.txn.put([{"KV": {"Verb": "set", "Key": "a", "Value": "MQ=="}}])
assert results["Errors"] is None

# What is off says so in words that the client knows.
try:
    client.acl.token.list()
    raise AssertionError("there is no access control")
except consul.ACLDisabled:
    pass
print("done")
