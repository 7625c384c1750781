# A client: it runs its service's checks, finds the server through gossip, and answers for it.
node_name = "ash"
server = false

service {
  name = "web"
  port = 8081
  tags = ["blue"]
}
