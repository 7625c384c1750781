# Two instances of one service on this host. Files written for Consul load unchanged.
services {
  id      = "web-1"
  name    = "web"
  tags    = ["blue"]
  address = "127.0.0.1"
  port    = 8081
}

services {
  id      = "web-2"
  name    = "web"
  tags    = ["green", "v2"]
  address = "127.0.0.2"
  port    = 8082
  weights { passing = 10, warning = 1 }
}
