// Consul's own Go client against the agent at the address given: what a program of its users does, one thing after the other.
package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/hashicorp/consul/api"
)

const deadline = 30 * time.Second

var client *api.Client

func main() {
	config := api.DefaultConfig()
	config.Address = os.Args[1] + ":8500"
	var err error
	client, err = api.NewClient(config)
	ok(err)
	services()
	keys()
	locks()
	rest()
	fmt.Println("done")
}

// Registers, is seen, changes, is lost.
func services() {
	agent := client.Agent()
	self, err := agent.Self()
	ok(err)
	same(self["Config"]["Datacenter"], "dc1")
	members, err := agent.Members(false)
	ok(err)
	same(len(members), 1)
	leader, err := client.Status().Leader()
	ok(err)
	peers, err := client.Status().Peers()
	ok(err)
	same(peers, []string{leader})
	for number := 1; number <= 2; number++ {
		ok(agent.ServiceRegister(&api.AgentServiceRegistration{
			ID:    fmt.Sprintf("web-%d", number),
			Name:  "web",
			Port:  8000 + number,
			Tags:  []string{"v1"},
			Meta:  map[string]string{"n": fmt.Sprint(number)},
			Check: &api.AgentServiceCheck{TTL: "60s", DeregisterCriticalServiceAfter: "90m"},
		}))
	}
	seen := passing([]string{"web-1", "web-2"})
	for number := 1; number <= 2; number++ {
		ok(agent.UpdateTTL(fmt.Sprintf("service:web-%d", number), "fine", api.HealthPassing))
	}
	wait(seen)
	seen = passing([]string{"web-1"})
	ok(agent.UpdateTTL("service:web-2", "no", api.HealthCritical))
	wait(seen)
	status, infos, err := agent.AgentHealthServiceByName("web")
	ok(err)
	same([]any{status, len(infos)}, []any{api.HealthCritical, 2})
	seen = passing(nil)
	ok(agent.ServiceDeregister("web-1"))
	wait(seen)
	own, err := agent.ServicesWithFilter(`Meta.n == 2 and "v1" in Tags`)
	ok(err)
	same([]any{len(own), own["web-2"].Port}, []any{1, 8002})
	all, _, err := client.Catalog().Services(nil)
	ok(err)
	same(all["web"], []string{"v1"})
	entries, _, err := client.Catalog().Service("web", "", &api.QueryOptions{Filter: `ServiceID matches "^web-"`})
	ok(err)
	same([]any{len(entries), entries[0].ServiceID}, []any{1, "web-2"})
	checks, _, err := client.Health().Checks("web", nil)
	ok(err)
	same([]any{len(checks), checks[0].Output}, []any{1, "no"})
}

// Follows the passing instances, from one index to the next, until they are these.
func passing(wanted []string) chan error {
	return watch(func(options *api.QueryOptions) (*api.QueryMeta, bool, error) {
		entries, meta, err := client.Health().Service("web", "", true, options)
		var ids []string
		for _, entry := range entries {
			ids = append(ids, entry.Service.ID)
		}
		return meta, reflect.DeepEqual(ids, wanted), err
	})
}

// Keys, and one that is waited for.
func keys() {
	kv := client.KV()
	pair, _, err := kv.Get("app/limit", nil)
	ok(err)
	same(pair == nil, true)
	seen := watch(func(options *api.QueryOptions) (*api.QueryMeta, bool, error) {
		pair, meta, err := kv.Get("app/limit", options)
		return meta, pair != nil && string(pair.Value) == "120" && pair.Flags == 42, err
	})
	_, err = kv.Put(&api.KVPair{Key: "app/limit", Value: []byte("120"), Flags: 42}, nil)
	ok(err)
	wait(seen)
	done, _, err := kv.CAS(&api.KVPair{Key: "app/limit", ModifyIndex: 1}, nil)
	ok(err)
	same(done, false)
	names, _, err := kv.Keys("app/", "", nil)
	ok(err)
	same(names, []string{"app/limit"})
	done, response, _, err := kv.Txn(api.KVTxnOps{{Verb: api.KVSet, Key: "a", Value: []byte("1")}, {Verb: api.KVGet, Key: "a"}}, nil)
	ok(err)
	same([]any{done, string(response.Results[1].Value)}, []any{true, "1"})
}

// A lock by the client's own hand: taken, refused to another, lost with its session.
func locks() {
	sessions := client.Session()
	mine, _, err := sessions.Create(&api.SessionEntry{Name: "mine", TTL: "60s", LockDelay: time.Millisecond}, nil)
	ok(err)
	lock, err := client.LockOpts(&api.LockOptions{Key: "lock", Session: mine, Value: []byte("mine")})
	ok(err)
	lost, err := lock.Lock(nil)
	ok(err)
	other, err := client.LockOpts(&api.LockOptions{Key: "lock", LockTryOnce: true, LockWaitTime: time.Second})
	ok(err)
	refused, err := other.Lock(nil)
	ok(err)
	same(refused == nil, true)
	entry, _, err := sessions.Info(mine, nil)
	ok(err)
	same([]any{entry.Name, entry.LockDelay}, []any{"mine", time.Millisecond})
	_, err = sessions.Destroy(mine, nil)
	ok(err)
	select {
	case <-lost:
	case <-time.After(deadline):
		fail("a lock whose session is destroyed is not lost")
	}
	// Its own session, renewed by the client.
	again, err := client.LockKey("lock")
	ok(err)
	held, err := again.Lock(nil)
	ok(err)
	same(held != nil, true)
	ok(again.Unlock())
	ok(again.Destroy())
}

// Events, and what is not here.
func rest() {
	event := client.Event()
	id, _, err := event.Fire(&api.UserEvent{Name: "deploy", Payload: []byte("v2")}, nil)
	ok(err)
	heard, meta, err := event.List("deploy", nil)
	ok(err)
	same([]any{len(heard), heard[0].ID, string(heard[0].Payload)}, []any{1, id, "v2"})
	same(meta.LastIndex, event.IDToIndex(id))
	entries, _, err := client.ConfigEntries().List(api.ServiceDefaults, nil)
	ok(err)
	same(len(entries), 0)
	peerings, _, err := client.Peerings().List(context.Background(), nil)
	ok(err)
	same(len(peerings), 0)
	_, _, err = client.ACL().TokenList(nil)
	same(err != nil, true)
}

// Reads again and again, each time waiting for a change since the last, until it is as expected.
func watch(read func(*api.QueryOptions) (*api.QueryMeta, bool, error)) chan error {
	seen := make(chan error, 1)
	go func() {
		options := &api.QueryOptions{WaitTime: 20 * time.Second}
		for {
			meta, holds, err := read(options)
			if err != nil || holds {
				seen <- err
				return
			}
			options.WaitIndex = meta.LastIndex
		}
	}()
	return seen
}

func wait(seen chan error) {
	select {
	case err := <-seen:
		ok(err)
	case <-time.After(deadline):
		fail("a change is not seen")
	}
}

func same(found, wanted any) {
	if !reflect.DeepEqual(found, wanted) {
		fail(fmt.Sprintf("found %v, expected %v", found, wanted))
	}
}

func ok(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(text string) {
	panic(text)
}
