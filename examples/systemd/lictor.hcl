# /etc/lictor/lictor.hcl: one server that also answers on port 53 of this machine.
server           = true
bootstrap_expect = 1
data_dir         = "/var/lib/lictor"
# Where other agents reach this one, once there are others.
bind_addr = "127.0.0.1"

lictor {
  dns {
    listen = ["127.0.0.1:53"]
  }
}
