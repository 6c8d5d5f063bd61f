namespace Drover.TestKit;

/// <summary>A private folder that goes away with the test.</summary>
public sealed class TempFolder : IDisposable
{
    public TempFolder(string? name = null)
    {
        Path = Directory.CreateTempSubdirectory("drover-test-").FullName;
        if (name is not null)
        {
            Path = System.IO.Path.Combine(Path, name);
            Directory.CreateDirectory(Path);
        }
    }

    public string Path { get; }

    public string File(string name) => System.IO.Path.Combine(Path, name);

    public void Dispose()
    {
        try
        {
            Directory.Delete(Path, recursive: true);
        }
        catch (IOException)
        {
            // A process under test may still be closing its files; the system's temp cleaner takes the rest.
        }
        catch (UnauthorizedAccessException)
        {
            // As above: a test may have made a folder read-only.
        }
    }
}
