using System.CommandLine;
using Drover.Orchestrator.Backlog;
using Drover.Workflows;

namespace Drover.Cli.Commands;

/// <summary><c>drover import-jsonl</c>: all or nothing.</summary>
internal static class ImportJsonlCommand
{
    public static Command Create(Caller caller)
    {
        var file = new Argument<string>("file") { Description = "A file with one JSON object per line; - reads standard input." };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("import-jsonl", "Add epics, tasks and dependencies from a file; all of it or nothing.") { file, json };
        command.SetAction(async (parsed, cancellationToken) =>
        {
            Project project = Project.Open(caller, parsed);
            string name = parsed.GetRequiredValue(file);
            byte[] content = await ReadAsync(caller, name, cancellationToken);
            ImportResult result = await project.ChangeAsync(tx => JsonlImport.Import(tx.Session, project.Id, name, content), cancellationToken);
            if (parsed.GetValue(json))
            {
                caller.Output.Json(result, BacklogJson.Default.ImportResult);
                return ExitCodes.Done;
            }
            foreach (ImportedItem item in result.Created)
                caller.Output.Line($"Created {item.Kind} {item.Id}: {item.Title}{(item.FileId is { } id && id != item.Id ? $" ({id})" : "")}");
            caller.Output.Line($"Imported {result.Epics} epic(s), {result.Tasks} task(s), {result.Dependencies} dependency(ies)");
            return ExitCodes.Done;
        });
        return command;
    }

    private static async Task<byte[]> ReadAsync(Caller caller, string name, CancellationToken cancellationToken)
    {
        try
        {
            await using Stream stream = name == "-" ? Console.OpenStandardInput() : File.OpenRead(Path.GetFullPath(name, caller.Folder));
            using var bytes = new MemoryStream();
            byte[] buffer = new byte[64 * 1024];
            while (await stream.ReadAsync(buffer, cancellationToken) is > 0 and int read)
            {
                bytes.Write(buffer, 0, read);
                if (bytes.Length > JsonlImport.MaxFile)
                    throw new DroverException(ErrorCode.InvalidInput, $"{name} is larger than {JsonlImport.MaxFile / 1024 / 1024} MiB: split it");
            }
            return bytes.ToArray();
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new DroverException(ErrorCode.NotFound, $"there is no file {name}: give the path of a JSONL file, or - for standard input");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new DroverException(ErrorCode.InvalidInput, $"{name} cannot be read: {e.Message}", e);
        }
    }
}
