package main

import (
	"fmt"
	"io"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	kubernetes "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/program"
)

// app is what all commands share: where they read and write, and the cluster that
// --context names. That is the hub, except for `join`.
type app struct {
	streams    genericiooptions.IOStreams
	scheme     *runtime.Scheme
	kubeconfig *genericclioptions.ConfigFlags
	progress   *progress
}

func newApp(streams genericiooptions.IOStreams) *app {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{kubernetes.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme} {
		utilruntime.Must(add(scheme))
	}
	ctrllog.SetLogger(logr.Discard()) // clients return their errors; without a logger they complain of that
	return &app{streams: streams, scheme: scheme, kubeconfig: clusterFlags(streams.ErrOut), progress: newProgress(streams.ErrOut)}
}

// clusterFlags are the flags of kubectl that name a cluster and a user. The others
// (--server, --token and so on) are left out: a context has them. Warnings of the API
// server go to a writer.
func clusterFlags(warnings io.Writer) *genericclioptions.ConfigFlags {
	f := genericclioptions.NewConfigFlags(true)
	f.Namespace = ptr.To(v1alpha1.SystemNamespace)
	f.WrapConfigFn = func(c *rest.Config) *rest.Config {
		c.UserAgent = "crossway/" + program.Version()
		c.QPS = -1 // a person's command needs no limit of its own; the API server has one
		c.WarningHandler = rest.NewWarningWriter(warnings, rest.WarningWriterOptions{Deduplicate: true})
		return c
	}
	f.CacheDir, f.ClusterName, f.AuthInfoName, f.APIServer, f.TLSServerName, f.Insecure = nil, nil, nil, nil, nil, nil
	f.CertFile, f.KeyFile, f.CAFile, f.BearerToken, f.ImpersonateUID, f.ImpersonateUserExtra, f.DisableCompression = nil, nil, nil, nil, nil, nil, nil
	f.ProxyURL = nil
	return f
}

// in returns the flags for another context of the same kubeconfig.
func (a *app) in(context string) *genericclioptions.ConfigFlags {
	flags := clusterFlags(a.streams.ErrOut)
	*flags.KubeConfig, *flags.Context, *flags.Namespace = *a.kubeconfig.KubeConfig, context, *a.kubeconfig.Namespace
	return flags
}

// namespace is that of Crossway's pods and Secrets in the cluster.
func (a *app) namespace() string { return *a.kubeconfig.Namespace }

// clientOf returns a client for the cluster that the flags name.
func (a *app) clientOf(flags *genericclioptions.ConfigFlags) (client.Client, *rest.Config, error) {
	config, err := flags.ToRESTConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("read kubeconfig: %w; name a context with --context, or a file with --kubeconfig", err)
	}
	c, err := client.New(config, client.Options{Scheme: a.scheme})
	if err != nil {
		return nil, nil, fmt.Errorf("reach %s (--context %q): %w", config.Host, *flags.Context, err)
	}
	return c, config, nil
}

// hub returns a client for the hub.
func (a *app) hub() (client.Client, error) {
	c, _, err := a.clientOf(a.kubeconfig)
	return c, err
}
