{{- define "edge.name" -}}crossway-edge-{{ .Values.pool }}{{- end }}

{{- define "edge.selector" -}}
app.kubernetes.io/name: crossway-edge
app.kubernetes.io/instance: {{ .Release.Name }}
crossway.dev/edge-pool: {{ .Values.pool | quote }}
{{- end }}

{{- define "edge.labels" -}}
{{ include "edge.selector" . }}
app.kubernetes.io/part-of: crossway
app.kubernetes.io/version: {{ .Values.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- /* files/limits.nft with the ranges and the number of the values, and a table for each pool. A family without
ranges has an address that is for documentation. Sets are named by the number: of a source that a set knows already, the
kernel keeps the number with which it was added. */ -}}
{{- define "edge.limits" -}}
{{- $four := list }}{{ $six := list }}
{{- range .Values.sourceLimit.gateways }}
{{- if contains ":" . }}{{ $six = append $six . }}{{ else }}{{ $four = append $four . }}{{ end }}
{{- end }}
{{- $four = join ", " ($four | default (list "192.0.2.0/32")) }}
{{- $six = join ", " ($six | default (list "2001:db8::/128")) }}
{{- $text := .Files.Get "files/limits.nft" }}
{{- $text = regexReplaceAll "(?m)^define gateways4 = .*$" $text (printf "define gateways4 = { %s }" $four) }}
{{- $text = regexReplaceAll "(?m)^define gateways6 = .*$" $text (printf "define gateways6 = { %s }" $six) }}
{{- $most := int64 .Values.sourceLimit.connections }}
{{- range list "sources4" "sources6" }}
{{- $text = replace . (printf "%s_%d" . $most) $text }}
{{- end }}
{{- $text | replace "over 2000" (printf "over %d" $most) | replace "inet crossway_edge" (printf "inet crossway_edge_%s" (replace "-" "_" .Values.pool)) }}
{{- end }}
