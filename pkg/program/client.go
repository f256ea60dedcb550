package program

import (
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Client is how a program calls an API server.
type Client struct {
	UserAgent string
	// QPS is the limit of requests per second, Burst how many may come at once.
	// client-go's defaults, 5 and 10, are for people.
	QPS   float32
	Burst int
}

// Config reads the kubeconfig file at path, which is the value of a flag. An
// empty path is the ServiceAccount of the program's own pod.
func (c Client) Config(flag, path string) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if path == "" {
		config, err = rest.InClusterConfig()
		flag += " is needed outside of a pod"
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	config.UserAgent, config.QPS, config.Burst = c.UserAgent, c.QPS, c.Burst
	// Kubernetes' own controllers ask for no compression, either: an API server in the same network takes longer to
	// compress a list than to send it. From 1.37 on it compresses each part of a streamed list by itself (KEP-3157).
	config.DisableCompression = true
	return config, nil
}
