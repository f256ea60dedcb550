package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
)

// resultVersion is the API group and version of what -o json prints.
var resultVersion = schema.GroupVersion{Group: "cli.crossway.dev", Version: "v1alpha1"}

// output prints the result of a command: as text for people or, with -o, as
// kubectl's printers do it.
type output struct {
	flags *genericclioptions.PrintFlags
	out   io.Writer
}

// outputFlags adds -o and its companions to a command.
func (a *app) outputFlags(c *cobra.Command) *output {
	o := &output{flags: genericclioptions.NewPrintFlags("").WithTypeSetter(a.scheme), out: a.streams.Out}
	o.flags.AddFlags(c)
	return o
}

// asText tells whether people read the result.
func (o *output) asText() bool {
	return *o.flags.OutputFormat == "" && *o.flags.TemplatePrinterFlags.TemplateArgument == ""
}

// print prints a result, a struct with JSON tags, as an object of a kind, or by text.
func (o *output) print(kind string, result any, text func(io.Writer) error) error {
	if o.asText() {
		return text(o.out)
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(result)
	if err != nil {
		return err
	}
	object := &unstructured.Unstructured{Object: fields}
	object.SetGroupVersionKind(resultVersion.WithKind(kind))
	return o.printObject(object)
}

// printObject prints an object as -o says.
func (o *output) printObject(object runtime.Object) error {
	printer, err := o.flags.ToPrinter()
	if err != nil {
		return usage("%w", err)
	}
	return printer.PrintObj(object, o.out)
}

// columns prints rows with aligned columns.
func columns(out io.Writer, rows [][]string) error {
	w := printers.GetNewTabWriter(out)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// step is a part of what a command did.
type step struct {
	What   string `json:"what"`
	Result string `json:"result"`
}

func printSteps(out io.Writer, steps []step) error {
	var rows [][]string
	for _, s := range steps {
		rows = append(rows, []string{s.What, s.Result})
	}
	return columns(out, rows)
}
