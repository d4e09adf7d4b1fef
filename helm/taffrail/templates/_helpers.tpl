{{/* Name of the operator's objects. */}}
{{- define "taffrail.fullname" -}}
{{- .Values.fullnameOverride | default (printf "%s-operator" .Release.Name) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "taffrail.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "taffrail.fullname" .) -}}
{{- end -}}

{{/* What selects the operator's pods. It never changes: a Deployment's selector cannot. */}}
{{- define "taffrail.selectorLabels" -}}
app.kubernetes.io/name: taffrail-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "taffrail.labels" -}}
{{ include "taffrail.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: taffrail
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "taffrail.image" -}}
{{- printf "%s/%s:%s" .Values.image.registry .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* Image of the brokers, without a tag. */}}
{{- define "taffrail.brokerImage" -}}
{{- .Values.brokers.image | default (printf "%s/%s/taffrail-broker" .Values.image.registry (dir .Values.image.repository) | replace "/./" "/") -}}
{{- end -}}
