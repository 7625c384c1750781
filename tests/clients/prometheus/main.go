// What Prometheus finds in the agent at the address given, by its own discovery: each change as a line.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/consul"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

func main() {
	config := consul.DefaultSDConfig
	config.Server = os.Args[1] + ":8500"
	config.Services = []string{"web"}
	config.ServiceTags = []string{"v1"}
	config.Filter = `"v1" in ServiceTags`
	config.HealthFilter = `Service.Meta.env != "staging"`
	config.RefreshInterval = model.Duration(time.Second)
	registry := prometheus.NewRegistry()
	metrics := config.NewDiscovererMetrics(registry, discovery.NewRefreshMetrics(registry))
	found, err := consul.NewDiscovery(&config, slog.Default(), metrics)
	if err != nil {
		panic(err)
	}
	groups := make(chan []*targetgroup.Group)
	go found.Run(context.Background(), groups)
	for changed := range groups {
		for _, group := range changed {
			var addresses []string
			for _, target := range group.Targets {
				addresses = append(addresses, string(target[model.AddressLabel]))
			}
			slices.Sort(addresses)
			fmt.Printf("targets %s\n", strings.Join(addresses, " "))
		}
	}
}
