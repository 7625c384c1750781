# Keys of the agent may stand in the same directory as its services.
node_meta { rack = "r7" }

dns_config {
  service_ttl { "*" = "5s", web = "9s" }
}
