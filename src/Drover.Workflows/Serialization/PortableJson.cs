using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;

namespace Drover.Workflows.Serialization;

/// <summary>
/// The cross-language format of DBOS (<c>portable_json</c>, reference part 1, 6.3): inputs are an object with positional and
/// named arguments, everything else is the bare value. Types come from the contexts the program registered; no reflection.
/// </summary>
internal sealed class PortableJson
{
    private readonly JsonSerializerOptions _options;

    public PortableJson(IEnumerable<IJsonTypeInfoResolver> resolvers)
    {
        _options = new JsonSerializerOptions
        {
            TypeInfoResolver = JsonTypeInfoResolver.Combine([.. resolvers, BasicJson.Default]),
            // Other languages write non-ASCII text literally; escaping it would only make rows longer.
            Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
            MaxDepth = 32,
        };
        _options.MakeReadOnly();
    }

    public JsonTypeInfo<T> Type<T>()
    {
        if (_options.TryGetTypeInfo(typeof(T), out JsonTypeInfo? info))
            return (JsonTypeInfo<T>)info;
        throw new DroverException(ErrorCode.InvalidInput,
            $"{typeof(T).Name} is in no registered JSON context: add [JsonSerializable(typeof({typeof(T).Name}))] to one and register it with UseJson");
    }

    public string Write<T>(T value) => value is null ? "null" : JsonSerializer.Serialize(value, Type<T>());

    public T? Read<T>(string? text) => text is null ? default : JsonSerializer.Deserialize(text, Type<T>());

    public string WriteInputs(params ReadOnlySpan<string> arguments) => "{\"positionalArgs\":[" + string.Join(',', arguments) + "]}";

    /// <summary>Finds each parameter's JSON text by position, else by name; an absent one is null.</summary>
    public static string[] ReadInputs(string? text, IReadOnlyList<string> names)
    {
        string[] found = new string[names.Count];
        Array.Fill(found, "null");
        if (string.IsNullOrEmpty(text))
            return found;
        using JsonDocument document = JsonDocument.Parse(text);
        JsonElement root = document.RootElement;
        if (root.TryGetProperty("positionalArgs", out JsonElement positional) && positional.ValueKind == JsonValueKind.Array)
        {
            int i = 0;
            foreach (JsonElement argument in positional.EnumerateArray())
            {
                if (i < found.Length)
                    found[i++] = argument.GetRawText();
            }
        }
        if (root.TryGetProperty("namedArgs", out JsonElement named) && named.ValueKind == JsonValueKind.Object)
        {
            for (int i = 0; i < names.Count; i++)
            {
                if (named.TryGetProperty(names[i], out JsonElement argument))
                    found[i] = argument.GetRawText();
            }
        }
        return found;
    }

    public static string WriteError(string name, string message, string? code = null) =>
        JsonSerializer.Serialize(new ErrorPayload(name, message, code), BasicJson.Default.ErrorPayload);

    public static ErrorPayload ReadError(string text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            JsonElement root = document.RootElement;
            if (root.ValueKind == JsonValueKind.Object)
            {
                return new ErrorPayload(
                    root.TryGetProperty("name", out JsonElement name) ? name.ToString() : "Error",
                    root.TryGetProperty("message", out JsonElement message) ? message.ToString() : text,
                    root.TryGetProperty("code", out JsonElement code) && code.ValueKind == JsonValueKind.String ? code.GetString() : null);
            }
        }
        catch (JsonException)
        {
            // Another SDK's native format: shown as it is.
        }
        return new ErrorPayload("Error", text, null);
    }

    public static string WriteError(Exception error) => error switch
    {
        StepFailedException step => WriteError(step.ErrorName, step.Message),
        WorkflowFailedException workflow => WriteError(workflow.ErrorName, workflow.Message, workflow.Code.ToString()),
        DroverException drover => WriteError(nameof(DroverException), drover.Message, drover.Code.ToString()),
        _ => WriteError(error.GetType().Name, error.Message),
    };
}

/// <summary>An error as it travels between languages (reference part 1, 6.3).</summary>
internal sealed record ErrorPayload(
    [property: JsonPropertyName("name")] string Name,
    [property: JsonPropertyName("message")] string Message,
    [property: JsonPropertyName("code")][property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Code);

/// <summary>The types every program may use without a context of its own.</summary>
[JsonSerializable(typeof(string))]
[JsonSerializable(typeof(bool))]
[JsonSerializable(typeof(bool?))]
[JsonSerializable(typeof(int))]
[JsonSerializable(typeof(int?))]
[JsonSerializable(typeof(long))]
[JsonSerializable(typeof(long?))]
[JsonSerializable(typeof(double))]
[JsonSerializable(typeof(decimal))]
[JsonSerializable(typeof(Guid))]
[JsonSerializable(typeof(DateTimeOffset))]
[JsonSerializable(typeof(DateTimeOffset?))]
[JsonSerializable(typeof(TimeSpan))]
[JsonSerializable(typeof(string[]))]
[JsonSerializable(typeof(int[]))]
[JsonSerializable(typeof(List<string>))]
[JsonSerializable(typeof(JsonElement))]
[JsonSerializable(typeof(ErrorPayload))]
internal sealed partial class BasicJson : JsonSerializerContext;
