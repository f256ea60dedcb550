// Package listener is a TCP listener for servers that anybody can connect to. It
// bounds the connections whose clients have not authenticated yet, in all and by
// source address, and how fast one source may open them.
//
// It knows neither TLS nor who a client is: its user says when a connection is
// established, and bounds the established ones.
//
// Example:
//
//	socket, err := listener.Listen(ctx, ":18001")
//	conn, err := socket.Accept()
//	conn.(*listener.Conn).Established() // after the handshake
package listener
