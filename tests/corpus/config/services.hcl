services {
  id = "web-1", name = "web", port = 80
  tags = ["a", "b" /* c */]
  tagged_addresses { lan = { address = "10.0.0.1", port = 80 } }
  weights { passing = 10, warning = 1 }
  check { http = "http://127.0.0.1/", interval = "10s", header { Host = ["x"] } }
  checks = [ { ttl = "30s" }, { args = ["/bin/true", "-x"], interval = "1m" } ]
}
services = [
  { name = "api", meta { v = "1" } },
  { name = "db", checks { tcp = "127.0.0.1:5432", interval = "5s", timeout = "1s" } }
]
check { id = "disk", name = "disk", ttl = "5m", service_id = "api", status = "passing" }
service "labelled" "twice" { port = 1 }
