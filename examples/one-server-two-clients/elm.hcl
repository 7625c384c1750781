node_name = "elm"
server = false

service {
  name = "web"
  port = 8082
  tags = ["green"]
}
