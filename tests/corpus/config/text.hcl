/* a comment
   over lines */ a = "esc \" \\ \n \t \u00e9 \U0001F600 \x41" // end
b = <<EOF
plain ${x}
  "text"
EOF
c = <<-EOT
    indented
      more
    EOT
d = [ <<X
in a list
X
, true, false, 1, -2, 0x1f, 017, 1.5, -2.5e-3, "é ü 漢", ] # last
"quoted key" = { "*" = 1, x.y-z_1 = [] } e {} f = {}
last =
