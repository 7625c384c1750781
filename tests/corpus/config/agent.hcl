# An agent as Ansible writes it.
datacenter = "dc1", node_name = "n-1" server = true
data_dir = "/opt/consul" log_level = "INFO"
client_addr = "127.0.0.1 ::1"
addresses { dns = "127.0.0.1" }
ports { dns = 8600, http = 0x2134, https = -1, serf_wan = -1 }
retry_join = ["10.0.0.1", "10.0.0.2",]
node_meta { rack = "r7", "a-b" = "1" }
performance = { raft_multiplier = 1 }
dns_config {
  service_ttl { "*" = "5s" web = "1m30s" }
  node_ttl = "1.5s", soa { min_ttl = 7 }
}
telemetry { prometheus_retention_time = "60s", prefix_filter = ["+a", "-b"] }
limits { request_limits { mode = "permissive", read_rate = 1.5e3, write_rate = -1 } }
acl { enabled = false, tokens { } }
lictor { dns { udp_batch = false, udp_bytes_max = 1232 } }
